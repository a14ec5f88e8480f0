"""What fails, and what continues: slower than the rest, and a target of their own."""
