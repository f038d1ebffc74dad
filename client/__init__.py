"""The hospital: images stay here."""
