"""Pure statistics: times and proportions."""
