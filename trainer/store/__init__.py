"""A run's database and its pictures: the only SQL is here."""
