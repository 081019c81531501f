"""Pure encode and decode, one module per protocol. Nothing here awaits, opens, logs or reads a clock."""
