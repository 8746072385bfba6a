"""The few modules of the release factory that go into its images."""
