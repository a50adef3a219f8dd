package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"dynamo-metrics/internal/fleet"
)

// CardPrefix returns the prefix of the keys of a namespace's model cards (0.6 to 1.6).
// The keys have the form v1/mdc/{ns}/{component}/{endpoint}/{hex}.
func CardPrefix(namespace string) string { return CardsRoot + namespace + "/" }

// CardKey returns the key of the card of the model that a worker serves at an endpoint.
func CardKey(namespace string, in fleet.Instance) string {
	return CardPrefix(namespace) + in.Component + "/" + in.Name + "/" + HexID(in.ID)
}

// ParseCardKey returns the instance whose model card a key below CardPrefix holds. It
// reports false for other keys, including those of LoRA adapters (see IsIgnoredKey).
func ParseCardKey(namespace, key string) (fleet.Instance, bool) {
	rest, ok := strings.CutPrefix(key, CardPrefix(namespace))
	if !ok || strings.Count(rest, "/") != 2 {
		return fleet.Instance{}, false
	}
	return parseInstance(rest, '/')
}

var errCard = errors.New("decode model card: it is of another type, or has no runtime_config")

// ParseCard decodes a model card (0.6 to 1.6). In 0.6 the value is the card. From 0.9 at
// the latest the card is the field card_json of a value of type Model.
func ParseCard(value []byte) (fleet.Card, error) {
	type card struct {
		Name      string  `json:"display_name"`
		BlockSize *uint64 `json:"kv_cache_block_size"`
		Runtime   *struct {
			KVTotal *uint64 `json:"total_kv_blocks"`
			MaxSeqs *uint64 `json:"max_num_seqs"`
			Ranks   *uint64 `json:"data_parallel_size"`
		} `json:"runtime_config"`
		Info json.RawMessage `json:"model_info"` // decoded later, because the card is valid even if this is not
	}
	var v struct {
		Type string
		card
		Card *card `json:"card_json"`
	}
	if err := json.Unmarshal(value, &v); err != nil {
		return fleet.Card{}, fmt.Errorf("decode model card: %w", err)
	}
	if v.Card != nil {
		v.card = *v.Card
	}
	if v.Type != "" && v.Type != "Model" || v.Runtime == nil {
		return fleet.Card{}, errCard
	}
	c := fleet.Card{
		Model:     v.Name,
		KVTotal:   opt(v.Runtime.KVTotal),
		MaxSeqs:   opt(v.Runtime.MaxSeqs),
		BlockSize: opt(v.BlockSize),
		Ranks:     opt(v.Runtime.Ranks),
		Metrics:   systemServer(v.Info),
	}
	if !validName(c.Model) {
		c.Model = ""
	}
	return c, nil
}

// systemServer returns the host:port of the worker's system server, which serves both the
// files of the model and the worker's metrics (1.4 to 1.6). Up to 1.3, and later for
// workers without such a server, the files are on the worker's own disk.
func systemServer(info json.RawMessage) string {
	var v struct {
		Config struct{ Path string } `json:"hf_config_json"`
	}
	if json.Unmarshal(info, &v) != nil {
		return ""
	}
	rest, ok := strings.CutPrefix(v.Config.Path, "http://")
	host, _, found := strings.Cut(rest, systemFiles)
	if !ok || !found || !ValidAddress("tcp://"+host) {
		return ""
	}
	return host
}

// systemFiles is the path below which a worker's system server serves the model's files.
const systemFiles = "/v1/metadata/"
