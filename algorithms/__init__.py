"""The strategies and systems of jaxmas, one file each."""
