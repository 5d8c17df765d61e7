package main

import "math"

// The field rules of sluice.event.v1, by hand, as a Go service would have them: straight code, nothing allocated for an
// event without fault. bench/peers/peers.long.test.ts holds them to the contract's own scanner.

type fault struct{ field, code string }

const (
	required   = "REQUIRED"
	tooShort   = "TOO_SHORT"
	tooLong    = "TOO_LONG"
	outOfRange = "OUT_OF_RANGE"
	tooMany    = "TOO_MANY"
	charset    = "CHARSET"
	unknown    = "UNKNOWN_ENUM"
	notFinite  = "NOT_FINITE"
)

const (
	maxMicros  = 1_000_000_000_000_000
	maxSeconds = 7_258_118_399
)

// One table look-up a byte: bit 0 letters, digits and . _ : / -, bit 1 control characters, bit 2 A to Z.
var classes = func() (table [256]uint8) {
	for c := 0; c < 256; c++ {
		switch {
		case c >= 'A' && c <= 'Z':
			table[c] = 1 | 4
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '.', c == '_', c == ':', c == '/', c == '-':
			table[c] = 1
		case c < 0x20, c == 0x7f:
			table[c] = 2
		}
	}
	return
}()

func only(text string, class uint8) bool {
	for i := 0; i < len(text); i++ {
		if classes[text[i]]&class == 0 {
			return false
		}
	}
	return true
}

func without(text string, class uint8) bool {
	for i := 0; i < len(text); i++ {
		if classes[text[i]]&class != 0 {
			return false
		}
	}
	return true
}

func checkEvent(e *event) (fault, bool) {
	switch {
	case e.EventID == "":
		return fault{"event_id", required}, false
	case len(e.EventID) > 64:
		return fault{"event_id", tooLong}, false
	case !only(e.EventID, 1):
		return fault{"event_id", charset}, false
	}
	switch e.Type {
	case "EVENT_TYPE_INSTALL", "EVENT_TYPE_SESSION", "EVENT_TYPE_CLICK", "EVENT_TYPE_IMPRESSION", "EVENT_TYPE_CONVERSION",
		"EVENT_TYPE_PAGE", "EVENT_TYPE_CUSTOM":
	case "", "EVENT_TYPE_UNSPECIFIED":
		return fault{"type", required}, false
	default:
		return fault{"type", unknown}, false
	}
	if e.OccurredAt == nil {
		return fault{"occurred_at", required}, false
	}
	if seconds := e.OccurredAt.Unix(); seconds < 0 || seconds > maxSeconds {
		return fault{"occurred_at", outOfRange}, false
	}
	switch {
	case len(e.Name) > 128:
		return fault{"name", tooLong}, false
	case !without(e.Name, 2):
		return fault{"name", charset}, false
	case len(e.UserID) > 256:
		return fault{"user_id", tooLong}, false
	case len(e.AnonymousID) > 256:
		return fault{"anonymous_id", tooLong}, false
	case len(e.SessionID) > 128:
		return fault{"session_id", tooLong}, false
	}
	if e.Device != nil {
		if f, ok := checkDevice(e.Device); !ok {
			return f, false
		}
	}
	if e.Touch != nil {
		if f, ok := checkTouch(e.Touch); !ok {
			return f, false
		}
	}
	switch {
	case e.ValueMicros < -maxMicros || e.ValueMicros > maxMicros:
		return fault{"value_micros", outOfRange}, false
	case e.Currency != "" && len(e.Currency) > 3:
		return fault{"currency", tooLong}, false
	case e.Currency != "" && len(e.Currency) < 3:
		return fault{"currency", tooShort}, false
	case !only(e.Currency, 4):
		return fault{"currency", charset}, false
	case len(e.Properties) > 64:
		return fault{"properties", tooMany}, false
	case len(e.Metrics) > 64:
		return fault{"metrics", tooMany}, false
	}
	for key, value := range e.Properties {
		switch {
		case key == "":
			return fault{"properties[]", required}, false
		case len(key) > 128:
			return fault{"properties[" + key + "]", tooLong}, false
		case len(value) > 4096:
			return fault{"properties[" + key + "]", tooLong}, false
		}
	}
	for key, value := range e.Metrics {
		switch {
		case key == "":
			return fault{"metrics[]", required}, false
		case len(key) > 128:
			return fault{"metrics[" + key + "]", tooLong}, false
		case math.IsNaN(value) || math.IsInf(value, 0):
			return fault{"metrics[" + key + "]", notFinite}, false
		}
	}
	if e.Page != nil {
		switch {
		case len(e.Page.URL) > 4096:
			return fault{"page.url", tooLong}, false
		case len(e.Page.Path) > 2048:
			return fault{"page.path", tooLong}, false
		case len(e.Page.Title) > 1024:
			return fault{"page.title", tooLong}, false
		case len(e.Page.Referrer) > 4096:
			return fault{"page.referrer", tooLong}, false
		case e.Page.Status > 999:
			return fault{"page.status", outOfRange}, false
		}
	}
	if e.App != nil {
		switch {
		case len(e.App.ID) > 256:
			return fault{"app.id", tooLong}, false
		case len(e.App.Version) > 64:
			return fault{"app.version", tooLong}, false
		case len(e.App.Build) > 64:
			return fault{"app.build", tooLong}, false
		case len(e.App.SDK) > 64:
			return fault{"app.sdk", tooLong}, false
		}
	}
	return fault{}, true
}

func checkDevice(d *device) (fault, bool) {
	switch d.Platform {
	case "", "PLATFORM_UNSPECIFIED", "PLATFORM_IOS", "PLATFORM_ANDROID", "PLATFORM_WEB", "PLATFORM_SERVER", "PLATFORM_OTHER":
	default:
		return fault{"device.platform", unknown}, false
	}
	switch {
	case len(d.ID) > 128:
		return fault{"device.id", tooLong}, false
	case len(d.OSVersion) > 64:
		return fault{"device.os_version", tooLong}, false
	case len(d.Manufacturer) > 64:
		return fault{"device.manufacturer", tooLong}, false
	case len(d.Model) > 128:
		return fault{"device.model", tooLong}, false
	case len(d.Locale) > 35:
		return fault{"device.locale", tooLong}, false
	case len(d.Country) > 2:
		return fault{"device.country", tooLong}, false
	case len(d.Country) == 1:
		return fault{"device.country", tooShort}, false
	case !only(d.Country, 4):
		return fault{"device.country", charset}, false
	case d.UTCOffsetMinutes < -1080 || d.UTCOffsetMinutes > 1080:
		return fault{"device.utc_offset_minutes", outOfRange}, false
	case len(d.AdvertisingID) > 128:
		return fault{"device.advertising_id", tooLong}, false
	case len(d.UserAgent) > 1024:
		return fault{"device.user_agent", tooLong}, false
	}
	return fault{}, true
}

func checkTouch(t *touch) (fault, bool) {
	switch {
	case len(t.Channel) > 128:
		return fault{"touch.channel", tooLong}, false
	case !without(t.Channel, 2):
		return fault{"touch.channel", charset}, false
	case len(t.Source) > 256:
		return fault{"touch.source", tooLong}, false
	case len(t.Medium) > 256:
		return fault{"touch.medium", tooLong}, false
	case len(t.Campaign) > 256:
		return fault{"touch.campaign", tooLong}, false
	case len(t.AdGroup) > 256:
		return fault{"touch.ad_group", tooLong}, false
	case len(t.Creative) > 256:
		return fault{"touch.creative", tooLong}, false
	case len(t.Keyword) > 512:
		return fault{"touch.keyword", tooLong}, false
	case len(t.ClickID) > 512:
		return fault{"touch.click_id", tooLong}, false
	case t.CostMicros < -maxMicros || t.CostMicros > maxMicros:
		return fault{"touch.cost_micros", outOfRange}, false
	}
	return fault{}, true
}
