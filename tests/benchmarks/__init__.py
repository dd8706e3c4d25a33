"""`make bench`: this service and what it is compared with, side by side, in one run."""
