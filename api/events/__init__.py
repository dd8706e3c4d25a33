"""Jobs live: what happens to them, told to who follows."""
