"""The downsamplers that come with tokbench, one file each."""
