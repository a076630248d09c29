package api

import (
	"context"
	"net/http"
	"net/netip"
	"time"
)

// Devices are the plain WireGuard devices that this node hosts.
type Devices interface {
	// Devices lists them.
	Devices(ctx context.Context) (DeviceList, error)
	// AddDevice hosts one more, now and after the next start, and returns what its configuration needs. The private key is the caller's.
	AddDevice(ctx context.Context, req DeviceRequest) (DeviceSetup, error)
	// Device returns what the configuration of one that is hosted needs.
	Device(ctx context.Context, req DeviceName) (DeviceSetup, error)
	// RemoveDevice hosts it no more: it is cut off within a second.
	RemoveDevice(ctx context.Context, req DeviceName) error
}

// DeviceRequest is the body of POST /v1/devices/add.
type DeviceRequest struct {
	Name      string   `json:"name"`       // a DNS label in lower case
	PublicKey string   `json:"public_key"` // WireGuard's, base64
	Tags      []string `json:"tags,omitempty"`
	Endpoint  string   `json:"endpoint,omitempty"` // host:port at which the device is to reach this node; "": one that is known
}

// DeviceName is the body of POST /v1/devices/show and remove.
type DeviceName struct {
	Name     string `json:"name"`
	Endpoint string `json:"endpoint,omitempty"` // to show: as in DeviceRequest
}

// DeviceSetup is what the device has to know, beside its private key.
type DeviceSetup struct {
	Schema       int            `json:"schema"`
	Name         string         `json:"name"`
	Addresses    []netip.Addr   `json:"addresses"`
	PublicKey    string         `json:"public_key"` // of this node
	PresharedKey string         `json:"preshared_key"`
	Endpoint     string         `json:"endpoint"` // of this node
	Public       bool           `json:"public"`   // strangers reach that endpoint, as far as is known
	AllowedIPs   []netip.Prefix `json:"allowed_ips"`
	DNS          []netip.Addr   `json:"dns"`
	Domain       string         `json:"domain"`
}

// DeviceList is the answer to GET /v1/devices.
type DeviceList struct {
	Schema  int      `json:"schema"`
	Devices []Device `json:"devices"`
}

// Device is one that is hosted.
type Device struct {
	Name          string       `json:"name"`
	PublicKey     string       `json:"public_key"`
	Addresses     []netip.Addr `json:"addresses"`
	Tags          []string     `json:"tags"`
	Created       time.Time    `json:"created"`
	LastHandshake *time.Time   `json:"last_handshake"` // null: there was none
}

func (r *DeviceRequest) check() error {
	switch {
	case r.Name == "" || len(r.Name) > MaxTagLength:
		return refuse("device: name %.80q: want 1 to %d characters", r.Name, MaxTagLength)
	case len(r.PublicKey) > 64 || len(r.Endpoint) > 300:
		return refuse("device: a key or an endpoint of that length is none")
	case len(r.Tags) > MaxTags:
		return refuse("device: %d tags: want at most %d", len(r.Tags), MaxTags)
	}
	return nil
}

func (r *DeviceName) check() error {
	if r.Name == "" || len(r.Name) > MaxTagLength || len(r.Endpoint) > 300 {
		return refuse("device: name %.80q: want 1 to %d characters", r.Name, MaxTagLength)
	}
	return nil
}

func (s *Server) devices(w http.ResponseWriter, r *http.Request) error {
	list, err := s.backend.Devices(r.Context())
	if err != nil {
		return err
	}
	list.Schema, list.Devices = Schema, orEmpty(list.Devices)
	return s.answer(w, list)
}

func (s *Server) addDevice(w http.ResponseWriter, r *http.Request) error {
	var req DeviceRequest
	if err := decode(w, r, &req, req.check); err != nil {
		return err
	}
	setup, err := s.backend.AddDevice(r.Context(), req)
	if err != nil {
		return err
	}
	setup.Schema = Schema
	return s.answer(w, setup)
}

func (s *Server) device(w http.ResponseWriter, r *http.Request) error {
	var req DeviceName
	if err := decode(w, r, &req, req.check); err != nil {
		return err
	}
	setup, err := s.backend.Device(r.Context(), req)
	if err != nil {
		return err
	}
	setup.Schema = Schema
	return s.answer(w, setup)
}

func (s *Server) removeDevice(w http.ResponseWriter, r *http.Request) error {
	var req DeviceName
	if err := decode(w, r, &req, req.check); err != nil {
		return err
	}
	if err := s.backend.RemoveDevice(r.Context(), req); err != nil {
		return err
	}
	return s.answer(w, struct{}{})
}

// Devices lists the devices that the node hosts.
func (c *Client) Devices(ctx context.Context) (list DeviceList, err error) {
	return list, c.call(ctx, http.MethodGet, "/v1/devices", nil, &list)
}

// AddDevice has the node host one more.
func (c *Client) AddDevice(ctx context.Context, req DeviceRequest) (setup DeviceSetup, err error) {
	return setup, c.call(ctx, http.MethodPost, "/v1/devices/add", req, &setup)
}

// Device asks for what the configuration of a device needs.
func (c *Client) Device(ctx context.Context, req DeviceName) (setup DeviceSetup, err error) {
	return setup, c.call(ctx, http.MethodPost, "/v1/devices/show", req, &setup)
}

// RemoveDevice has the node host it no more.
func (c *Client) RemoveDevice(ctx context.Context, req DeviceName) error {
	return c.call(ctx, http.MethodPost, "/v1/devices/remove", req, &struct{}{})
}
