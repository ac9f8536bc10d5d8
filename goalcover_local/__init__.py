"""GoalCover Local: find the capabilities that fine-tuning data lacks, without the data leaving the building."""

__version__ = "0.1.0"
