package packaging

// Detect returns the service manager that runs this machine; the error is ErrNone when there is none.
func Detect() (Service, error) {
	// The test of sd_booted(3).
	if !exists("/run/systemd/system") {
		return nil, ErrNone
	}
	return &systemd{root: "/", run: run}, nil
}
