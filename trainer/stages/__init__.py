"""The method, a stage a file: tensors and numbers in, one result out. Nothing here knows settings, files or models."""
