"""What DESIGN section 2 says of the public surface, sentence by sentence."""
