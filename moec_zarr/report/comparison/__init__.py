"""Two arrays beside one another: metrics, pictures and spectra."""
