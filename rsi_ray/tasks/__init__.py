"""What candidates learn and are scored on."""
