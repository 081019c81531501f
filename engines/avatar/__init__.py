"""The embedded digital human: Duix-Avatar's wire on a CPU. It loops a video under a recording; it moves no lips."""
