"""The hospital's side; images stay here."""
