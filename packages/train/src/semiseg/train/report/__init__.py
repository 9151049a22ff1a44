"""What is made of finished runs: collected scores, tables, charts, one self-contained page."""
