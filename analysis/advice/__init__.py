"""Advice: compress or not, with what, how sure that is, and which of the inputs it hangs on."""
