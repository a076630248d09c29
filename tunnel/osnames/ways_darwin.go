package osnames

import "context"

// ways are what macOS has: /etc/resolver first, which programs of the system heed at once.
func ways(o Options) []way { return []way{&resolvers{dir: "/etc/resolver", mesh: o.Mesh}, inFile(o)} }

// resolvers is one file for each domain in /etc/resolver.
type resolvers struct{ dir, mesh string }

func (r *resolvers) name() string { return "resolver" }
func (r *resolvers) says() string { return r.dir + " has macOS ask the agent" }

func (r *resolvers) lacks(_ context.Context, d Desired) string {
	if len(d.Servers) == 0 {
		return notAnswering
	}
	return ""
}

func (r *resolvers) changes() <-chan struct{} { return nil }
func (r *resolvers) holds() bool              { return false } // as for a file
func (r *resolvers) close()                   {}

func (r *resolvers) set(_ context.Context, d Desired) error {
	return setResolvers(r.dir, r.mesh, append([]string{d.Domain}, d.Reverse...), d.Servers)
}

func (r *resolvers) clear(context.Context) error { return setResolvers(r.dir, r.mesh, nil, nil) }
func (r *resolvers) sweep(context.Context) error { return setResolvers(r.dir, r.mesh, nil, nil) }
