"""Query rows and paged keys in, attention signals out."""
