"""Conversation, speech in and speech out, over Fun-Audio-Chat's protocol."""
