package portmaptest

import (
	"bufio"
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	portSSDP = 1900
	portHTTP = 5000

	serviceIP       = "urn:schemas-upnp-org:service:WANIPConnection:1"
	serviceFirewall = "urn:schemas-upnp-org:service:WANIPv6FirewallControl:1"
)

// serveSSDP answers one search; nil: not at all.
func (r *Router) serveSSDP(b []byte, to netip.AddrPort) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	const target = "urn:schemas-upnp-org:device:InternetGatewayDevice:1"
	text := string(b)
	if !r.o.UPnP || to.Port() != portSSDP || !strings.HasPrefix(text, "M-SEARCH * HTTP/1.1\r\n") || !strings.Contains(text, "ST: "+target+"\r\n") {
		return nil
	}
	r.requests["SSDP"]++
	at := netip.AddrPortFrom(r.o.Gateway.WithZone(""), portHTTP)
	return fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nST: %s\r\nUSN: uuid:1::%s\r\nEXT:\r\nSERVER: memory\r\nLOCATION: http://%v/rootDesc.xml\r\n\r\n", target, target, at)
}

// serveHTTP answers the one request of a connection.
func (r *Router) serveHTTP(c net.Conn) {
	defer c.Close()
	request, err := http.ReadRequest(bufio.NewReader(c))
	if err != nil {
		return
	}
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return
	}
	code, text := r.serve(request, body)
	answer := http.Response{
		StatusCode: code, ProtoMajor: 1, ProtoMinor: 1, Close: true, ContentLength: int64(len(text)),
		Header: http.Header{"Content-Type": {`text/xml; charset="utf-8"`}}, Body: io.NopCloser(strings.NewReader(text)),
	}
	_ = answer.Write(c) // the client may be gone
}

func (r *Router) serve(request *http.Request, body []byte) (code int, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests["HTTP"]++
	if request.URL.Path == "/rootDesc.xml" {
		return http.StatusOK, r.description()
	}
	service, action, ok := strings.Cut(strings.Trim(request.Header.Get("SOAPAction"), `"`), "#")
	if !ok || request.URL.Path != "/control" {
		return http.StatusNotFound, ""
	}
	args, err := arguments(body)
	if err != nil {
		return http.StatusBadRequest, ""
	}
	out, fault := r.act(service, action, args)
	if fault != 0 {
		return http.StatusInternalServerError, envelope(fmt.Sprintf(`<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring>`+
			`<detail><UPnPError xmlns="urn:schemas-upnp-org:control-1-0"><errorCode>%d</errorCode><errorDescription>no</errorDescription></UPnPError></detail></s:Fault>`, fault))
	}
	return http.StatusOK, envelope(fmt.Sprintf(`<u:%sResponse xmlns:u="%s">%s</u:%sResponse>`, action, service, out, action))
}

func envelope(body string) string {
	return xml.Header + `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>` + body + `</s:Body></s:Envelope>`
}

// description is that of a device with the service of the router's family. r.mu is held.
func (r *Router) description() string {
	service := serviceIP
	if r.o.Gateway.Is6() {
		service = serviceFirewall
	}
	return xml.Header + `<root xmlns="urn:schemas-upnp-org:device-1-0"><specVersion><major>1</major><minor>0</minor></specVersion><device>` +
		`<deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType><friendlyName>memory</friendlyName><deviceList><device>` +
		`<deviceType>urn:schemas-upnp-org:device:WANDevice:1</deviceType><deviceList><device>` +
		`<deviceType>urn:schemas-upnp-org:device:WANConnectionDevice:1</deviceType><serviceList><service>` +
		`<serviceType>` + service + `</serviceType><serviceId>1</serviceId><controlURL>/control</controlURL>` +
		`</service></serviceList></device></deviceList></device></deviceList></device></root>`
}

// arguments returns those of a SOAP request by name.
func arguments(body []byte) (map[string]string, error) {
	var request struct {
		Body struct {
			Action struct {
				Args []struct {
					XMLName xml.Name
					Value   string `xml:",chardata"`
				} `xml:",any"`
			} `xml:",any"`
		} `xml:"Body"`
	}
	if err := xml.NewDecoder(bytes.NewReader(body)).Decode(&request); err != nil {
		return nil, err
	}
	args := map[string]string{}
	for _, a := range request.Body.Action.Args {
		args[a.XMLName.Local] = a.Value
	}
	return args, nil
}

// act does one action and returns its arguments out, or an error code. r.mu is held.
func (r *Router) act(service, action string, args map[string]string) (out string, fault int) {
	number := func(name string) uint16 {
		n, _ := strconv.ParseUint(args[name], 10, 16) // 0 is refused where it matters
		return uint16(n)
	}
	tcp := args["NewProtocol"] == "TCP"
	seconds := func(name string) time.Duration { return time.Duration(number(name)) * time.Second }
	switch service + "#" + action {
	case serviceIP + "#GetExternalIPAddress":
		return "<NewExternalIPAddress>" + r.o.External.String() + "</NewExternalIPAddress>", 0
	case serviceIP + "#AddPortMapping":
		client, err := netip.ParseAddr(args["NewInternalClient"])
		if err != nil || !tcp && args["NewProtocol"] != "UDP" || number("NewExternalPort") == 0 || number("NewInternalPort") == 0 {
			return "", 402
		}
		return "", r.addMapping(tcp, number("NewExternalPort"), netip.AddrPortFrom(client, number("NewInternalPort")), seconds("NewLeaseDuration"))
	case serviceIP + "#DeletePortMapping":
		port := number("NewExternalPort")
		i := r.find(func(e Entry) bool { return e.External.Port() == port && e.TCP == tcp && e.Internal.Addr() == r.o.Host })
		if i < 0 {
			return "", 714
		}
		r.entries = slices.Delete(r.entries, i, i+1)
		return "", 0
	case serviceFirewall + "#GetFirewallStatus":
		return fmt.Sprintf("<FirewallEnabled>1</FirewallEnabled><InboundPinholeAllowed>%t</InboundPinholeAllowed>", !r.o.Refuse), 0
	case serviceFirewall + "#AddPinhole":
		client, err := netip.ParseAddr(args["InternalClient"])
		tcp := number("Protocol") == protocolTCP
		if err != nil || !tcp && number("Protocol") != protocolUDP || client != r.o.Host {
			return "", 606
		}
		internal := netip.AddrPortFrom(client, number("InternalPort"))
		r.nextID++
		r.entries = append(r.entries, Entry{External: internal, Internal: internal, TCP: tcp, Protocol: "UPnP", Expires: time.Now().Add(r.life(seconds("LeaseTime"))), id: r.nextID})
		return fmt.Sprintf("<UniqueID>%d</UniqueID>", r.nextID), 0
	case serviceFirewall + "#UpdatePinhole", serviceFirewall + "#DeletePinhole":
		i := r.find(func(e Entry) bool { return e.id != 0 && e.id == number("UniqueID") })
		if i < 0 {
			return "", 704
		}
		if action == "DeletePinhole" {
			r.entries = slices.Delete(r.entries, i, i+1)
		} else {
			r.entries[i].Expires = time.Now().Add(r.life(seconds("NewLeaseTime")))
		}
		return "", 0
	}
	return "", 401
}

// addMapping is AddPortMapping: it takes the very port or fails. r.mu is held.
func (r *Router) addMapping(tcp bool, port uint16, internal netip.AddrPort, lease time.Duration) (fault int) {
	i := r.find(func(e Entry) bool { return e.External.Port() == port && e.TCP == tcp })
	switch {
	case r.o.Refuse || internal.Addr() != r.o.Host:
		return 606
	case lease > 0 && r.o.PermanentOnly:
		return 725
	case i >= 0 && r.entries[i].Internal != internal:
		return 718
	case i >= 0:
		r.entries = slices.Delete(r.entries, i, i+1)
	}
	e := Entry{External: netip.AddrPortFrom(r.o.External, port), Internal: internal, TCP: tcp, Protocol: "UPnP"}
	if lease > 0 {
		e.Expires = time.Now().Add(r.life(lease))
	}
	r.entries = append(r.entries, e)
	return 0
}
