"""What an archive keeps of its data and what it does not, by stated criteria."""
