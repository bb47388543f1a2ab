"""What only threads, processes and sockets that block have."""
