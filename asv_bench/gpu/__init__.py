"""What gpu_report.py does on a GPU: check, sanitize, time; one file each."""
