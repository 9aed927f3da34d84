"""What holds for the process as a whole: its logs, its threads, who starts it again."""
