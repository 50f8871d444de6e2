"""Transformers of the diffusers library as models of the host. The library does the architecture; here is
what the host and it have to be told of each other."""
