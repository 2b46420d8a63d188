"""The networks that mmsegmentation lacks or builds otherwise."""
