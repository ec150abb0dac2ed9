"""The environments of jaxmas, one file or folder each."""
