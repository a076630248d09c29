package packaging

// Detect returns the service manager that runs this machine, which is always launchd.
func Detect() (Service, error) { return &launchd{root: "/", run: run}, nil }
