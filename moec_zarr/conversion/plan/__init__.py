"""What a conversion will do: where its values come from, and what becomes of each variable."""
