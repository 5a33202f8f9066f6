"""What `doctor` checks to find what would keep a run from working; changes nothing and creates nothing."""
