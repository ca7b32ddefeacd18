"""The core of creative_services, in the modules its architecture names."""
