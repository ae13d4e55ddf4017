"""Generated from `proto/scopeward/v1` by `generate.py`. Not part of the public interface."""
