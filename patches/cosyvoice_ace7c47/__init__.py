"""CosyVoice at ace7c47f41bbd303aa6bf1ea80e6f9fbd595cd40 (2026-03-16)."""
