"""Sources in, pages for people out: HTML from templates, drawn further by small scripts that read the JSON API."""
