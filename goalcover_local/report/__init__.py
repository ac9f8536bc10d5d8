"""Reports: what a command found as tables in Markdown and as figures, made from its JSON record alone."""
