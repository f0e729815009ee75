"""Python source text: what the targets that write code of a framework share."""
