"""What is examined to find out what would keep a run from working; changes nothing and creates nothing."""
