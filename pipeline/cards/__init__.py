"""What a card prints, as pure functions of a record."""
