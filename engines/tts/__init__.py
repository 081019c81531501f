"""Speech synthesis behind CosyVoice's HTTP protocol."""
