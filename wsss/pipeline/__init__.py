"""What the workflow engine and the command line ask of the package: stages, runs, clusters."""
