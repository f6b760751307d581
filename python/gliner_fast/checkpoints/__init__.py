"""A checkpoint's files -> the parts of a model; its weights alone are read by `weights`."""
