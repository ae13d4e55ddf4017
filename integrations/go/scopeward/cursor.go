package scopeward

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// Position is a place in one audit log: after the record of this sequence.
type Position struct {
	LogID    string `json:"log_id"`
	Sequence uint64 `json:"sequence"`
}

// Cursor keeps where a reader is. Write one of your own to keep it in a database, in one transaction with what you store.
type Cursor interface {
	// Load returns the position kept, or nil at first.
	Load() (*Position, error)

	// Save replaces it. It is called after the event was handled.
	Save(position Position) error
}

// FileCursor keeps the position in the file of this name, in the form of `scopeward audit tail --cursor-file`.
type FileCursor string

// Load returns nil if there is no file. A file that is no cursor is an error: starting from the beginning would hide that.
func (c FileCursor) Load() (*Position, error) {
	text, err := os.ReadFile(string(c))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var position struct {
		LogID    *string `json:"log_id"`
		Sequence *uint64 `json:"sequence"`
	}
	if err := json.Unmarshal(text, &position); err != nil {
		return nil, fmt.Errorf("`%s` is not a cursor: %w", string(c), err)
	}
	if position.LogID == nil || position.Sequence == nil {
		return nil, fmt.Errorf("`%s` is not a cursor: log_id or sequence is missing", string(c))
	}
	return &Position{*position.LogID, *position.Sequence}, nil
}

// Save replaces the file in one step: a new file, synced, renamed over the old one.
func (c FileCursor) Save(position Position) error {
	text, err := json.Marshal(position)
	if err != nil {
		return err
	}
	fresh := string(c) + ".new"
	file, err := os.Create(fresh)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	if err == nil {
		err = file.Sync()
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	return os.Rename(fresh, string(c))
}
