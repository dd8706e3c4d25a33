"""`/jobs` and `/bundles`: submission, reading, cancellation, removal, outputs."""
