"""What is kept for a while: in this process, or in Redis for all of them."""
