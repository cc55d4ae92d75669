"""File formats that medtrust reads out of the box: PNG, JPEG, BMP, TIFF, DICOM, NIfTI and numpy arrays."""
