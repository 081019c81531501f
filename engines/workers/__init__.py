"""Models in processes of their own: a server stays awake while they work, and survives them.

A worker is given one job at a time over its stdin and answers over its stdout. Several sessions may share one: then
their jobs queue in it. A worker that dies is replaced; a worker that does not stop when told to is killed.
"""
