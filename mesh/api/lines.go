package api

import (
	"encoding/json"
	"net/http"
	"time"
)

// lines writes an answer as a stream of JSON values, one a line, each sent at once. It starts with the first line, so an error
// before that is answered with a status of its own; an error after that is the last line.
type lines struct {
	w       http.ResponseWriter
	control *http.ResponseController
	started bool
}

func newLines(w http.ResponseWriter) *lines {
	return &lines{w: w, control: http.NewResponseController(w)}
}

func (l *lines) write(v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic("internal error: encode line of API answer: " + err.Error())
	}
	if !l.started {
		l.started = true
		l.w.Header().Set("Content-Type", "application/x-ndjson")
	}
	// Neither can fail on a unix socket but for a caller who has gone; then the request's context ends too.
	_ = l.control.SetWriteDeadline(time.Now().Add(answerTime))
	_, _ = l.w.Write(append(Harmless(body), '\n'))
	_ = l.control.Flush()
}

// end finishes the stream with the result of the Backend's call.
func (l *lines) end(err error) error {
	switch {
	case err != nil && !l.started:
		return err
	case err != nil:
		l.write(envelope{Error: asError(err)})
	case !l.started:
		l.w.Header().Set("Content-Type", "application/x-ndjson")
	}
	return nil
}
